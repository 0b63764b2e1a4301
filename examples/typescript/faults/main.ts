// Serves FaultService, and registers it where TOOLPLANE_URL points to.
//
//   npm run faults --workspace examples/typescript -- [host:port] [instance] ['{"errorRate": 0.3}']
import { fromJsonString } from "@bufbuild/protobuf";
import { closeOnSignals, createLogger, createRegistration, systemClock } from "@toolplane/framework";
import { FaultsSchema } from "../gen/examples/faults/v1/fault_service_pb.js";
import { startFaultServer } from "./fault-server.ts";

const [listen = "127.0.0.1:50054", instance = `faults-${process.pid}`, faults = "{}"] = process.argv.slice(2);
const logger = createLogger({ name: "faults" });
const server = await startFaultServer({
  listen,
  instance,
  faults: fromJsonString(FaultsSchema, faults),
});
const url = process.env["TOOLPLANE_URL"];
const registration =
  url === undefined
    ? undefined
    : createRegistration({
        url,
        token: process.env["TOOLPLANE_TOKEN"],
        service: { name: "faults", version: "1.0.0", title: "Faults on request", tags: ["faults"] },
        instance: { id: instance, endpoint: server.url },
        logger,
        clock: systemClock,
      });
closeOnSignals({
  logger,
  async close() {
    await registration?.stop();
    await server.close();
  },
});
console.log(`listening on ${server.url}`);
