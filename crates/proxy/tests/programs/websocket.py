"""websocket.py serve ADDRESS PORT | ask ADDRESS PORT: a server that echoes, and a client that checks it."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        await connection.send(message)
    await connection.close(4001, "as you wish")


async def ask(address, port):
    async with connect(f"ws://{address}:{port}/chat", max_size=None) as connection:
        await connection.send("hello")
        assert await connection.recv() == "hello"
        large = bytes(range(256)) * 8192
        await connection.send(large)
        assert await connection.recv() == large
        await (await connection.ping())
        fragments = ["one ", "two ", "three"]
        await connection.send(fragments)
        assert await connection.recv() == "".join(fragments)
        await connection.close(4000, "enough")
        assert (connection.close_code, connection.close_reason) == (4000, "enough")
    print("ok")


async def main(what, address, port):
    if what == "serve":
        async with serve(echo, address, int(port), max_size=None) as server:
            await server.serve_forever()
    await ask(address, port)


asyncio.run(main(*sys.argv[1:]))
