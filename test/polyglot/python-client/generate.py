"""Compiles the contract for Python into the folder given. Runs at the root of the repository."""

import pathlib
import sys

import grpc_tools
from grpc_tools import protoc

out = sys.argv[1]
roots = [pathlib.Path("proto"), pathlib.Path(".proto-deps")]
sources = [str(path.relative_to(root)) for root in roots for path in sorted(root.rglob("*.proto"))]
well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
includes = [f"-I{root}" for root in [*roots, well_known]]
sys.exit(protoc.main(["protoc", *includes, f"--python_out={out}", f"--grpc_python_out={out}", *sources]))
