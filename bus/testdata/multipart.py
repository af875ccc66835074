"""multipart.py PUBLISHERS SUBSCRIBERS MESSAGES FRAMES SIZE [HEARTBEAT]: messages of 1 to FRAMES frames, some empty, arrive as they were sent.

With HEARTBEAT, in milliseconds, the publisher has a small send buffer and every message FRAMES frames, so that
PINGs get between them.
"""

import sys

from peers import END, join, pub, receive, say, sub

messages, frames, size = (int(a) for a in sys.argv[3:6])
beat = {}
if len(sys.argv) > 6:
    beat = {"HEARTBEAT_IVL": int(sys.argv[6]), "HEARTBEAT_TIMEOUT": 60000, "SNDBUF": 16384}


def body(n, f):
    return b"" if (n + f) % 3 == 0 else bytes([n % 256, f % 256]) * ((n * 31 + f * 17) % size // 2)


def message(n):
    return [body(n, f) for f in range(frames if beat else 1 + n % frames)]


publisher = pub(sys.argv[1], **beat)
subscriber = sub(sys.argv[2], b"")
join(publisher, subscriber)
for n in range(messages):
    publisher.send_multipart(message(n))
publisher.send(END)
got, wrong = 0, []
for m in receive(subscriber):
    if m != message(got):
        wrong.append(got)
    got += 1
say(got=got, wrong=wrong[:10])
