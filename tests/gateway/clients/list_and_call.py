"""Lists tools and calls one, with the MCP SDK for Python.

    list_and_call.py URL TOKEN MODE TOOL ARGUMENTS

Prints {"tools": [...], "isError": ..., "text": ...}.
"""

import asyncio
import json
import sys

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


async def main(url, token, mode, tool, arguments):
    async with create_mcp_http_client(headers={"Authorization": f"Bearer {token}"}) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            tools = [entry.name for entry in (await client.list_tools()).tools]
            result = await client.call_tool(tool, json.loads(arguments))
            text = "".join(getattr(block, "text", "") for block in result.content)
            print(json.dumps({"tools": tools, "isError": bool(result.is_error), "text": text}))


asyncio.run(main(*sys.argv[1:]))
