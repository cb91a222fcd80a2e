"""Logs in as the MCP SDK for Python does, from 401 through metadata to a call.

    login_and_call.py URL TOOL ARGUMENTS

The authorization server approves at once, so a GET of the page that a browser would open is the whole dialogue.
Prints {"text": ...}.
"""

import asyncio
import json
import sys
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import OAuthClientMetadata


class Memory:
    tokens = None
    client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


class Browser:
    """Follows the redirect to the authorization server and keeps what comes back."""

    answer = None

    async def open(self, url):
        async with httpx2.AsyncClient() as http:
            response = await http.get(url)
        assert response.status_code == 302, response.text
        query = parse_qs(urlsplit(response.headers["location"]).query)
        self.answer = {key: values[0] for key, values in query.items()}

    async def result(self):
        return AuthorizationCodeResult(**self.answer)


async def main(url, tool, arguments):
    browser = Browser()
    metadata = OAuthClientMetadata(client_name="test", redirect_uris=["http://127.0.0.1:1/callback"])
    auth = OAuthClientProvider(url, metadata, Memory(), browser.open, browser.result)
    async with create_mcp_http_client(auth=auth) as http:
        async with Client(streamable_http_client(url, http_client=http)) as client:
            result = await client.call_tool(tool, json.loads(arguments))
            print(json.dumps({"text": result.content[0].text}))


asyncio.run(main(*sys.argv[1:]))
