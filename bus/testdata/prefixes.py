"""prefixes.py PUBLISHERS SUBSCRIBERS: each subscriber gets exactly what its prefixes match, once, early or late."""

import sys

from peers import END, join, pub, receive, say, sub

wanted = [
    [b""],
    [b"a"],
    [b"a", b"ab", b"", b"abc"],
    [b"\x00\x01\xff"],
    [b"abcdefghijklmnop"],
    [b"b", b"abc"],
    [b"a" * 300],
    [],
]
topics = [b"", b"a", b"ab", b"abc", b"abd", b"abcdefghijklm", b"b", b"\x00", b"\x00\x01", b"\x00\x01\xff", b"\x00\x01\xffx", b"a" * 299, b"a" * 301]
messages = [[t, b"%d" % n] for n in range(20) for t in topics]

late = pub(sys.argv[1])
subscribers = [sub(sys.argv[2], *p) for p in wanted]
join(late, *subscribers)
early = [late]
late = pub(sys.argv[1])  # after the subscriptions
join(late, *subscribers)

failures = []
for publisher in early + [late]:
    for message in messages:
        publisher.send_multipart(message)
    publisher.send(END)
    for prefixes, subscriber in zip(wanted, subscribers):
        expected = [m for m in messages if any(m[0].startswith(p) for p in prefixes)]
        got = list(receive(subscriber))
        if got != expected:
            failures.append("%r: %d of %d: %r" % (prefixes, len(got), len(expected), got[:5]))
say(failures=failures)
