"""Which particle has the next event: a tournament tree over the times at which they are due.

Particle k is leaf ``size + k`` of a full binary tree, ``size`` a power of two. A node holds the earlier of its two
children; the root, node 1, holds the next event of all. A changed time plays its way up again: log2(size) comparisons
of neighbours in memory.

The winners of parts of the tree are soon the next of all, so what their events read can be fetched ahead of time.

Reference:
    Knuth 1998, The Art of Computer Programming 3, section 5.4.1 (tree of selection).
"""

from typing import no_type_check

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from simulators.engines.event_rules import borrowing


def tree_size(n_particles: int) -> int:
    """Return the number of leaves, a power of two that holds all particles; the tree has twice as many nodes."""
    return 1 << max(n_particles - 1, 1).bit_length()


@borrowing
@no_type_check
def _play(parent, times, winners):
    """Let the two children of a node play."""
    left = 2 * parent
    winner = left + (times[left + 1] < times[left])
    times[parent] = times[winner]
    winners[parent] = winners[winner]


@borrowing
@no_type_check
def play_all(times, winners):
    """Play all games, after the leaves (from ``size`` on) were given their times."""
    size = times.shape[0] // 2
    for k in range(size):
        winners[size + k] = k
    for parent in range(size - 1, 0, -1):
        _play(parent, times, winners)


@borrowing
@no_type_check
def reschedule(k, time, times, winners):
    """Give particle k another time and play its games again."""
    node = times.shape[0] // 2 + k
    times[node] = time
    while node > 1:
        rival = node ^ 1
        # arithmetic, not a branch: no processor can guess who wins
        winner = winners[node ^ (times[rival] < time)]
        time = min(time, times[rival])
        node >>= 1
        times[node] = time
        winners[node] = winner


@intrinsic
def prefetch(_, array, item):
    """Let the processor fetch the cache line of an item of an array, which need not exist, and not wait for it."""

    def generate(context, builder, signature, arguments):
        start = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        item = context.cast(builder, arguments[1], signature.args[1], types.intp)
        line = builder.bitcast(builder.gep(start, [item]), cgutils.voidptr_t)
        flag = ir.IntType(32)
        hint = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, flag, flag, flag])
        call = cgutils.get_or_insert_function(builder.module, hint, "llvm.prefetch.p0")
        builder.call(call, [line, flag(0), flag(3), flag(1)])  # to read, into all caches, data
        return context.get_dummy_value()

    return types.void(array, item), generate
