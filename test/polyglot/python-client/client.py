"""Uses a Toolplane server with stubs that grpcio-tools generated, and prints what it saw as JSON."""

import json
import sys

generated, address, tool = sys.argv[1:]
sys.path.insert(0, generated)

import grpc  # noqa: E402
from google.protobuf import json_format  # noqa: E402
from google.rpc import error_details_pb2, status_pb2  # noqa: E402
from grpc.health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from toolplane.registry.v1 import registry_service_pb2 as registry_pb  # noqa: E402
from toolplane.registry.v1 import registry_service_pb2_grpc as registry_rpc  # noqa: E402
from toolplane.tools.v1 import tool_service_pb2 as tools_pb  # noqa: E402
from toolplane.tools.v1 import tool_service_pb2_grpc as tools_rpc  # noqa: E402

channel = grpc.insecure_channel(address)
registry = registry_rpc.RegistryServiceStub(channel)
tools = tools_rpc.ToolServiceStub(channel)
deadline = {"timeout": 20}

call = tools_pb.ToolCall(tool=tool)
call.arguments.update({"text": "One short sentence. And one more.", "top_words": 2})

seen = {
    "health": health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), **deadline).status,
    "services": [s.name for s in registry.ListServices(registry_pb.ListServicesRequest(), **deadline).services],
    "hits": [h.tool.name for h in registry.SearchTools(registry_pb.SearchToolsRequest(query="readability"), **deadline).hits],
    "result": json_format.MessageToDict(tools.CallTool(tools_pb.CallToolRequest(call=call), **deadline).result.json),
    "events": [
        event.WhichOneof("event")
        for event in tools.CallToolStream(tools_pb.CallToolStreamRequest(call=call), **deadline)
    ],
}

# A watch stays open until its reader leaves.
watch = registry.WatchServices(registry_pb.WatchServicesRequest(), **deadline)
seen["watched"] = []
for event in watch:
    kind = event.WhichOneof("event")
    if kind == "synced":
        watch.cancel()
        break
    seen["watched"].append(event.updated.name)

try:
    registry.GetTool(registry_pb.GetToolRequest(name="nowhere.Nothing"), **deadline)
except grpc.RpcError as error:
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(details).details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    seen["error"] = {"code": error.code().name, "reason": info.reason, "domain": info.domain}

print(json.dumps(seen))
