"""What another process is told to call: a module that imports no Triton in the process that tells it."""


def call(name: str, arguments: tuple, options: dict) -> None:
    """Calls a function of `triton_interpreter`."""
    import triton_interpreter

    getattr(triton_interpreter, name)(*arguments, **options)
