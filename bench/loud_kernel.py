"""What a kernel's cells never raise, told in a file: PYTHONSTARTUP of the kernels that tests start.

A thread may die after its cell is over, an observer fail when the page calls it, a comm's callback log its error to a
terminal: none of it reaches the notebook. Each becomes a line of the file that XMALIGN_HIDDEN_ERRORS names.
"""


def _listen() -> None:
    import logging
    import os
    import sys
    import threading

    from IPython import get_ipython

    shell, path = get_ipython(), os.environ.get("XMALIGN_HIDDEN_ERRORS")
    if shell is None or not path:
        return

    def tell(where: str, kind: type | None, error: object) -> None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(" ".join(f"{where}: {getattr(kind, '__name__', 'error')}: {error}".split()) + "\n")

    died, lost, shown = threading.excepthook, sys.unraisablehook, shell.showtraceback

    def in_thread(args) -> None:
        tell(f"thread {getattr(args.thread, 'name', '')}", args.exc_type, args.exc_value)
        died(args)

    def unraisable(args) -> None:
        tell(f"ignored in {args.object!r}", args.exc_type, args.exc_value)
        lost(args)

    def shows(exc_tuple=None, *args, **kwargs) -> None:
        if not kwargs.get("running_compiled_code"):  # the cell's own error, which fails its test anyway
            tell("shown, not raised", *(exc_tuple or sys.exc_info())[:2])
        shown(exc_tuple, *args, **kwargs)

    class Logged(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[0]:
                tell(f"logged by {record.name}", *record.exc_info[:2])

    threading.excepthook, sys.unraisablehook, shell.showtraceback = in_thread, unraisable, shows
    logging.getLogger().addHandler(Logged(logging.ERROR))


_listen()
del _listen  # it ran in the notebook's own names
