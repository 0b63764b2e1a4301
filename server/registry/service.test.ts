import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  ResourceInfoSchema,
} from "@toolplane/gen/google/rpc/error_details_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { openTestDatabase } from "../storage/testing.ts";
import { registryRoutes } from "./service.ts";
import { openRegistry, startServer } from "./test-support/open-registry.ts";
import { described, instance } from "./test-support/specs.ts";

test("the whole registry is reached over the wire", async () => {
  const database = await openTestDatabase();
  onTestFinished(() => database.close());
  const registry = await openRegistry(database);
  const server = await startServer({ routes: registryRoutes(registry) });
  const client = createClient(RegistryService, createGrpcTransport({ baseUrl: server.url }));
  const leave = new AbortController();
  const watch = client.watchServices({}, { signal: leave.signal })[Symbol.asyncIterator]();
  expect((await watch.next()).value?.event.case).toBe("synced");

  const registered = await client.registerService({
    service: described({ name: "weather" }),
    instance: instance({ endpoint: "localhost:1", leaseTtl: { seconds: 10n } }),
  });
  expect(registered.service).toMatchObject({ name: "weather", toolCount: 1 });
  expect(registered.leaseTtl && durationMs(registered.leaseTtl)).toBe(10_000);
  expect(registered.heartbeatInterval && durationMs(registered.heartbeatInterval)).toBe(3_333);
  expect((await watch.next()).value?.event).toMatchObject({ case: "updated", value: { name: "weather" } });

  const { instanceId } = registered;
  const { leaseTtl } = await client.renewLease({ instanceId });
  expect(leaseTtl && durationMs(leaseTtl)).toBe(10_000);
  const ref = { service: { name: "weather" } };
  expect((await client.getService(ref)).service?.instances).toHaveLength(1);
  expect((await client.listServices({})).totalSize).toBe(1);
  expect((await client.listTools({})).tools.map(({ alias }) => alias)).toEqual(["weather.GetForecast"]);
  expect((await client.searchTools({ query: "forecast" })).hits[0]?.tool?.alias).toBe("weather.GetForecast");
  expect((await client.getTool({ name: "GetForecast" })).tool?.inputSchema).toMatchObject({ type: "object" });
  expect((await client.checkHealth({})).checks).toMatchObject([{ instanceId, status: HealthStatus.HEALTHY }]);
  expect((await client.listHealthChecks({})).checks).toMatchObject([{ service: "weather", instanceId }]);
  expect((await client.refreshService(ref)).changes).toEqual([]);
  expect(
    (await client.deregisterService({ target: { case: "instanceId", value: instanceId } })).removedInstances,
  ).toBe(1);

  const failure = await client.renewLease({ instanceId }).catch(ConnectError.from);
  expect(failure).toBeInstanceOf(ConnectError);
  if (failure instanceof ConnectError) {
    expect(failure.code).toBe(Code.NotFound);
    expect(failure.findDetails(ErrorInfoSchema)).toMatchObject([
      { reason: "INSTANCE_NOT_FOUND", domain: "toolplane" },
    ]);
    expect(failure.findDetails(ResourceInfoSchema)).toMatchObject([{ resourceName: instanceId }]);
  }
  leave.abort();
});

test("names that are the server's own, headers of the protocol and credentials in a URL are refused by field", async () => {
  const database = await openTestDatabase();
  onTestFinished(() => database.close());
  const registry = await openRegistry(database);
  const server = await startServer({ routes: registryRoutes(registry) });
  const client = createClient(RegistryService, createGrpcTransport({ baseUrl: server.url }));
  const fieldsOf = async (call: Promise<unknown>) => {
    const error = ConnectError.from(await call.catch((reason: unknown) => reason));
    return error
      .findDetails(BadRequestSchema)
      .flatMap(({ fieldViolations }) => fieldViolations.map(({ field }) => field));
  };
  const endpoint = "localhost:1";
  expect(
    await fieldsOf(
      client.registerService({
        service: { name: "toolplane" },
        instance: { endpoint, id: "toolplane:mine" },
      }),
    ),
  ).toEqual(["service.name", "instance.id"]);
  const header = (name: string) => ({ name, value: { case: "literal" as const, value: "x" } });
  expect(
    await fieldsOf(
      client.registerService({
        service: { name: "a", headers: [header("x-api-key"), header("Host"), header("grpc-timeout")] },
        instance: { endpoint },
      }),
    ),
  ).toEqual(["service.headers[1].name", "service.headers[2].name"]);
  const url = "http://user:secret@localhost/utcp";
  const source = {
    kind: { case: "utcpManual" as const, value: { manual: { case: "url" as const, value: url } } },
  };
  expect(
    await fieldsOf(client.registerService({ service: { name: "a", source }, instance: { endpoint } })),
  ).toEqual(["service.source.utcp_manual.url"]);
  for (const target of [
    { case: "service" as const, value: { name: "toolplane" } },
    { case: "instanceId" as const, value: "toolplane:1" },
  ]) {
    expect(await fieldsOf(client.deregisterService({ target }))).toHaveLength(1);
  }
  expect(registry.counts().services).toBe(0);
});
