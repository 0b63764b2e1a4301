import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { startFaultServer } from "../examples/typescript/faults/fault-server.ts";
import { FaultsSchema } from "../examples/typescript/gen/examples/faults/v1/fault_service_pb.js";

// The instances of bench/faults.ts, in a process of their own. Told `[index, faults]`, they obey.
const instances = await Promise.all(
  ["one", "two", "three"].map((instance) => startFaultServer({ listen: "127.0.0.1:0", instance })),
);
process.on("message", (message) => {
  const [index, faults] = message as [number, JsonValue];
  instances[index]?.setFaults(fromJson(FaultsSchema, faults));
  process.send?.("done");
});
process.send?.(instances.map(({ url }) => url));
process.once("disconnect", async () => {
  await Promise.all(instances.map((instance) => instance.close()));
  process.exit();
});
