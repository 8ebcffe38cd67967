"""The MCP client of its own makers, against `weir mcp`.

mcp_client.py WEIR URL PORT: WEIR_ADMIN says where weir is; URL is fetched through it; it is started again on PORT.
"""

import asyncio
import json
import os
import sys

from jsonschema import Draft202012Validator
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

weir, url, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
TOOLS = {
    "start_proxy", "stop_proxy", "proxy_status", "test_proxy", "configure_system_proxy", "unconfigure_system_proxy",
    "list_flows", "get_flow", "explain", "cache_stats",
}


def snake(model, name):
    """An attribute, however this version of the client spells it."""
    camel = "".join(word.title() if index else word for index, word in enumerate(name.split("_")))
    return getattr(model, name) if hasattr(model, name) else getattr(model, camel)


async def main():
    server = StdioServerParameters(command=weir, args=["mcp"], env={"WEIR_ADMIN": os.environ["WEIR_ADMIN"]})
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        tools = (await session.list_tools()).tools
        assert {tool.name for tool in tools} == TOOLS, tools
        for tool in tools:
            Draft202012Validator.check_schema(snake(tool, "input_schema"))
            assert tool.description

        async def call(name, **arguments):
            result = await session.call_tool(name, arguments)
            text = result.content[0].text
            return (text, True) if snake(result, "is_error") else (json.loads(text), False)

        status, _ = await call("proxy_status")
        assert status["running"] and status["port"] == port, status
        tested, _ = await call("test_proxy", url=url)
        assert tested["success"] and tested["status_code"] == 200, tested
        flows = []
        while not flows:
            flows = (await call("list_flows", count=5))[0]["flows"]
        flow, _ = await call("get_flow", id=flows[-1]["id"])
        assert flow == flows[-1], flow
        why, failed = await call("get_flow", id=10**9)
        assert failed and "no flow" in why, why
        explained, _ = await call("explain", url=url)
        assert "verdicts" in explained, explained
        assert (await call("cache_stats"))[0] == {"enabled": False}
        stopped, _ = await call("stop_proxy")
        assert stopped["status"] == "stopped" and not (await call("proxy_status"))[0]["running"]
        started, _ = await call("start_proxy", port=port)
        assert started == {"status": "running", "port": port, "system_proxy": None}, started
        for name in ["configure_system_proxy", "unconfigure_system_proxy"]:
            why, failed = await call(name)
            assert failed and why, why
        for name, arguments in [("nonsense", {}), ("get_flow", {}), ("get_flow", {"id": "x"}), ("stop_proxy", {"x": 1})]:
            try:
                assert snake(await session.call_tool(name, arguments), "is_error")
            except Exception as error:
                assert not isinstance(error, AssertionError), (name, arguments)
    print("all well")


asyncio.run(main())
