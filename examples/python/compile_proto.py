"""Writes gen/ from proto/ when it is missing or older; `gen` then has to be on the path."""

import pathlib
import sys

from grpc_tools import protoc
import grpc_tools

HERE = pathlib.Path(__file__).parent
GEN = HERE / "gen"


def ensure_compiled() -> None:
    sources = sorted((HERE / "proto").rglob("*.proto"))
    stamp = GEN / ".stamp"
    if not stamp.exists() or any(s.stat().st_mtime > stamp.stat().st_mtime for s in sources):
        GEN.mkdir(exist_ok=True)
        well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
        arguments = [f"-I{HERE / 'proto'}", f"-I{well_known}", f"--python_out={GEN}", f"--grpc_python_out={GEN}"]
        if protoc.main(["protoc", *arguments, *map(str, sources)]) != 0:
            sys.exit("the .proto files cannot be compiled")
        stamp.touch()
    sys.path.insert(0, str(GEN))


if __name__ == "__main__":
    ensure_compiled()
