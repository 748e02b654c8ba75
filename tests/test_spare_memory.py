"""What a large request leaves behind in a model's process goes back to the system."""

import subprocess
import sys

from test_gallery import MODULES

# Blocks that are too small for pages of their own; every twentieth stays, so that the heap cannot shrink by itself.
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from spare_memory import ROOM_BYTES, SpareMemory, resident_bytes
memory, before = SpareMemory(), resident_bytes()
blocks = [bytearray(b"x" * 60_000) for _ in range(5000)]
kept = blocks[::20]
del blocks
left = resident_bytes() - before
memory.give_back()
print(left, resident_bytes() - before, ROOM_BYTES)
"""


def test_freed_memory_is_given_back():
    output = subprocess.run([sys.executable, "-c", SCRIPT, str(MODULES)], capture_output=True, text=True, check=True)
    left, given_back, room = map(int, output.stdout.split())
    assert left > 2 * room and given_back < room
