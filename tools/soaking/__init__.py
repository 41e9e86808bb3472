"""What `./tools/soak` is made of: a crowd of processes on one small cache, and what holds while they are at it.

The conductor (`soak.py`) goes through rounds. In each, participants read, list, put, evict, clear, verify, repair, fork
and close at random, while objects are overwritten, requests go wrong, and processes are stopped and killed. Then all of
them end, some by SIGKILL, and what they left is looked at (`reckoning.py`): no process, no lock, nothing staged, whole
bytes, books that agree with the disk, and each object fetched once when all read again.
"""
