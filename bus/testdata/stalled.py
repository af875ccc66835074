"""stalled.py PUBLISHERS SUBSCRIBERS MESSAGES SIZE: a subscriber that does not read, beside one that does.

The publisher is never more than AHEAD messages ahead of the healthy one, so that its queue
never overflows however slow the machine is.

Once all is published and the healthy one has everything it says so and waits for a line on the
standard input; then the stalled one reads what is left for it, and its end waits for another line.
"""

import sys
import threading

from peers import END, join, pub, receive, say, sub

AHEAD = 500

messages, size = int(sys.argv[3]), int(sys.argv[4])
publisher = pub(sys.argv[1])
healthy = sub(sys.argv[2], b"m")
stalled = sub(sys.argv[2], b"m", RCVHWM=1, RCVBUF=4096)
join(publisher, healthy, stalled)
while stalled.poll(200):  # the rest of what join sent
    stalled.recv()

got = []
room = threading.Semaphore(AHEAD)


def read():
    for message in receive(healthy):
        got.append(message[0][:9])
        room.release()


thread = threading.Thread(target=read)
thread.start()
for n in range(messages):
    if not room.acquire(timeout=10):  # too many are lost: what has arrived shows it
        break
    publisher.send(b"m%08d" % n + b"x" * (size - 9))
publisher.send(END)
thread.join()
complete = got == [b"m%08d" % n for n in range(messages)]
say(healthy=len(got), complete=complete)
sys.stdin.readline()
rest = []
while stalled.poll(3000):
    message = stalled.recv()
    rest.append(message[:9] if message != END else "end")
    if message == END:
        break
numbers = [int(m[1:]) for m in rest if m != "end"]
say(stalled=len(rest), ordered=numbers == sorted(set(numbers)), first=numbers[0] if numbers else -1, last=numbers[-1] if numbers else -1)
sys.stdin.readline()
