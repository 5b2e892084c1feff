"""The threads that run an entry point together."""

from concurrent.futures import ThreadPoolExecutor

from leadline.models.simd.compiler import EntryPoint
from leadline.models.simd.kernel_args import KernelArgs


class ThreadTeam:
    """Threads, including the caller's, that share the groups of a batch."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._others = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def run(self, function: EntryPoint, args: KernelArgs, groups: int) -> None:
        """Runs an entry point over a number of groups; returns when every thread has finished."""
        # A thread without a group would only spin at the barrier.
        threads = min(self.threads, groups)
        args.reset_barrier()  # its goals depend on the number of threads
        futures = [
            self._others.submit(function, args.address, thread, threads)
            for thread in range(1, threads)
            if self._others
        ]
        function(args.address, 0, threads)
        for future in futures:
            future.result()
