"""Sockets for the test scripts, which are given the relay's endpoints as arguments and print what they saw as JSON."""

import json
import sys
import time

import zmq

MARK = b"\xfe\xff"
SYNC, END = MARK + b"sync", MARK + b"end"
context = zmq.Context()


def options(socket, opts):
    socket.setsockopt(zmq.LINGER, opts.pop("LINGER", 5000))
    for name, value in opts.items():
        socket.setsockopt(getattr(zmq, name), value)
    return socket


def pub(endpoint, kind=zmq.PUB, **opts):
    """A publisher that drops nothing by itself."""
    opts.setdefault("SNDHWM", 0)
    socket = options(context.socket(kind), opts)
    socket.connect(endpoint)
    return socket


def sub(endpoint, *prefixes, **opts):
    """A subscriber that drops nothing by itself, subscribed to the prefixes and then to SYNC and END."""
    opts.setdefault("RCVHWM", 0)
    opts.setdefault("SNDHWM", 0)
    socket = options(context.socket(zmq.SUB), opts)
    for prefix in prefixes:
        socket.subscribe(prefix)
    socket.subscribe(MARK)
    socket.connect(endpoint)
    return socket


def join(publisher, *subscribers, patience=30):
    """Returns once what the publisher sends reaches the subscribers."""
    deadline = time.monotonic() + patience
    for subscriber in subscribers:
        while not subscriber.poll(10):
            publisher.send(SYNC)
            if time.monotonic() > deadline:
                sys.exit("no connection through the relay within %d s" % patience)


def receive(subscriber, quiet=10000):
    """Yields messages until END comes, to which the subscriber is to be subscribed, or none for quiet ms."""
    while subscriber.poll(quiet):
        message = subscriber.recv_multipart()
        if message[0] == SYNC:
            continue
        if message == [END]:
            return
        yield message


def say(**result):
    print(json.dumps(result), flush=True)
