"""record.py DIRECTORY: records what libzmq sends, from its greeting on, as seeds for the fuzz targets."""

import os
import socket
import sys
import threading
import time

import zmq

GREETING = b"\xff" + bytes(8) + b"\x7f\x03%c" + b"NULL".ljust(20, b"\0") + bytes(32)


def ready(kind):
    body = b"\x05READY" + b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    return bytes([4, len(body)]) + body


def record(name, kind, answer, minor, then, use):
    """Plays the peer of a libzmq socket, of type kind, that use is called with."""
    server = socket.create_server(("127.0.0.1", 0))
    client = zmq.Context.instance().socket(kind)
    client.setsockopt(zmq.LINGER, 1000)
    client.setsockopt(zmq.HEARTBEAT_IVL, 70)
    client.setsockopt(zmq.HEARTBEAT_TIMEOUT, 60000)
    client.setsockopt(zmq.HEARTBEAT_TTL, 5000)
    client.connect("tcp://127.0.0.1:%d" % server.getsockname()[1])
    conn, _ = server.accept()
    got = bytearray()

    def read():
        while True:
            p = conn.recv(65536)
            if not p:
                return
            got.extend(p)

    thread = threading.Thread(target=read)
    thread.start()
    conn.sendall(GREETING % minor + ready(answer))
    time.sleep(0.2)
    conn.sendall(then)
    time.sleep(0.2)
    use(client)
    time.sleep(0.2)
    client.close()
    thread.join()
    with open(os.path.join(sys.argv[1], name), "wb") as f:
        f.write(got)


def publish(s):
    for n in (0, 1, 33, 34, 255, 256, 5000):
        s.send(b"t" * n)
    s.send_multipart([b"topic", b"", b"x" * 300, b""])
    s.send_multipart([b"topic"] + [b"%d" % i for i in range(50)])
    time.sleep(0.1)
    s.send(b"topic after heartbeats")


def subscribe(s):
    for topic in (b"", b"a", b"a", b"b" * 300, b"\x00\x01\xff"):
        s.subscribe(topic)
        s.poll(10)
    s.unsubscribe(b"a")
    s.unsubscribe(b"a")
    s.unsubscribe(b"b" * 300)
    s.poll(50)


record("pub-3.1", zmq.PUB, b"SUB", 1, b"\x04\x0a\x09SUBSCRIBE", publish)
record("pub-3.0", zmq.PUB, b"SUB", 0, b"\x00\x01\x01", publish)
record("sub-3.1", zmq.SUB, b"PUB", 1, b"", subscribe)
record("sub-3.0", zmq.SUB, b"PUB", 0, b"", subscribe)
