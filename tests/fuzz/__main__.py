"""Fuzzes every file reader, guided by coverage, with Atheris (the extra `fuzz`).

    python -m tests.fuzz --seconds=60 [TARGET ...]

The time is shared by the targets. A file that a reader neither reads nor refuses by one line is
kept under --findings, and the exit status is then 1.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

_CASE_SECONDS, _MEGABYTES = 20, 4096  # a case that takes more is a finding
_NO_PACKAGE = 2


def main(argv: list[str]) -> int:
    """Fuzzes the targets one after the other; the exit status."""
    try:
        import atheris  # noqa: F401 - only asked for here
    except ImportError:
        sys.stderr.write("tests.fuzz: needs the package atheris: pip install '.[fuzz]'\n")
        return _NO_PACKAGE
    options = _options(argv)
    if options.child:
        return _fuzz(options)
    from tests.fuzz.targets import TARGETS

    names = options.targets or list(TARGETS)
    failed = []
    for name in names:
        shared = max(options.seconds / len(names), 1)
        words = [name, f"--seconds={shared}", f"--findings={options.findings}", "--child"]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", *words], capture_output=True, text=True
        )
        counts = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
        if done.returncode:
            failed.append(name)
            sys.stdout.write(done.stderr)
        said = "FAILED" if done.returncode else "no findings"
        sys.stdout.write(f"{name:12} {said}. {' '.join(counts)}\n")
        sys.stdout.flush()
    return int(bool(failed))


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="readers; all of them by default")
    parser.add_argument("--seconds", type=float, default=60, help="in all")
    parser.add_argument("--findings", type=pathlib.Path, default=pathlib.Path("runs/fuzz"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _fuzz(options: argparse.Namespace) -> int:
    """Fuzzes one target in this process, which Atheris ends."""
    import atheris

    with atheris.instrument_imports(include=["delg_jax", "json", "csv", "tarfile", "PIL"]):
        from tests.fuzz import targets
    (name,) = options.targets
    target = targets.TARGETS[name]
    options.findings.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="delg_fuzz_"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(target.seeds()):
        (corpus / f"seed{number}").write_bytes(data)
    path = folder / f"case{target.suffix}"
    settings = [
        f"-max_total_time={int(options.seconds)}",
        f"-timeout={_CASE_SECONDS}",
        f"-rss_limit_mb={_MEGABYTES}",
        f"-artifact_prefix={options.findings}/{name}-",
        "-print_final_stats=0",
        "-verbosity=1",
    ]
    atheris.Setup(["fuzz", *settings, str(corpus)], lambda data: targets.run(target, path, data))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
