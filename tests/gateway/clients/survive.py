"""Calls a tool, one that ends the server's process, and the first again, in one session of the MCP SDK for Python.

    survive.py URL TOKEN

Prints {"before": ..., "crash": ..., "after": ...}.
"""

import asyncio
import json
import sys

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


async def main(url, token):
    async with create_mcp_http_client(headers={"Authorization": f"Bearer {token}"}) as http:
        async with Client(streamable_http_client(url, http_client=http), mode="legacy") as client:

            async def call(tool):
                result = await client.call_tool(tool, {})
                return "".join(getattr(block, "text", "") for block in result.content)

            said = {"before": await call("ok")}
            try:
                said["crash"] = await call("exit")
            except Exception as error:
                said["crash"] = str(error)
            said["after"] = await call("ok")
            print(json.dumps(said))


asyncio.run(main(*sys.argv[1:]))
