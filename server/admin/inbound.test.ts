import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { expect, test } from "vitest";
import { serveSample } from "../../framework/test-support/sample-server.ts";
import { SampleService } from "../../framework/test-support/sample-service.ts";
import { createInboundMeter, type InboundMeter } from "./inbound.ts";

const echo = `${SampleService.typeName}/Echo`;
const count = `${SampleService.typeName}/Count`;
const flood = `${SampleService.typeName}/Flood`;

async function serveMetered() {
  const meter = createInboundMeter();
  const refuseAll = { refuse: false };
  const { url } = await serveSample(
    {
      gates: [
        meter.gate,
        () => {
          if (refuseAll.refuse) {
            throw new ConnectError("no", Code.ResourceExhausted);
          }
        },
      ],
      onCall: meter.onCall,
    },
    {
      echo({ value }) {
        if (value === "fail") {
          throw new ConnectError("as asked", Code.FailedPrecondition);
        }
        return { value };
      },
    },
  );
  return {
    meter,
    refuseAll,
    grpc: createClient(SampleService, createGrpcTransport({ baseUrl: url })),
    connect: createClient(SampleService, createConnectTransport({ baseUrl: url, httpVersion: "1.1" })),
  };
}

/** Ended calls by method, protocol and code. */
function ended(meter: InboundMeter): Record<string, number> {
  return Object.fromEntries(
    [...meter.methods()].flatMap(({ method, protocols }) =>
      [...protocols].flatMap(([protocol, { codes }]) =>
        [...codes].map(([code, calls]) => [`${method} ${protocol} ${code}`, calls]),
      ),
    ),
  );
}

test("calls are counted by method, protocol and code, refused ones too", async () => {
  const { meter, refuseAll, grpc, connect } = await serveMetered();
  await grpc.echo({ value: "a" });
  await connect.echo({ value: "b" });
  await connect.echo({ value: "fail" }).catch(() => {});
  await Array.fromAsync(grpc.count({ value: 2 }));
  refuseAll.refuse = true;
  await grpc.echo({ value: "c" }).catch(() => {});
  await expect
    .poll(() => ended(meter))
    .toEqual({
      [`${echo} grpc ok`]: 1,
      [`${echo} connect ok`]: 1,
      [`${echo} connect failed_precondition`]: 1,
      [`${echo} grpc resource_exhausted`]: 1,
      [`${count} grpc ok`]: 1,
    });
  expect(meter.total).toMatchObject({ ended: 5, inFlight: 0 });
});

test("what runs is in flight until it is left, and a stream does not count as a slow call", async () => {
  const { meter, grpc } = await serveMetered();
  const leave = new AbortController();
  await grpc.flood({}, { signal: leave.signal })[Symbol.asyncIterator]().next();
  expect([...meter.methods()]).toMatchObject([{ method: flood, inFlight: 1 }]);
  expect(meter.total.inFlight).toBe(1);
  leave.abort();
  await expect.poll(() => meter.total.inFlight).toBe(0);
  expect(ended(meter)).toEqual({ [`${flood} grpc canceled`]: 1 });
  expect(meter.total).toMatchObject({ ended: 1, latency: { count: 0 } });
});

test("what has ended is active until it is forgotten, the busiest first", async () => {
  const { meter, grpc } = await serveMetered();
  await Array.fromAsync(grpc.count({ value: 1 }));
  await grpc.echo({ value: "a" });
  await grpc.echo({ value: "b" });
  await expect.poll(() => meter.total.inFlight).toBe(0);
  expect(meter.active(10)).toEqual([echo, count]);
  expect(meter.active(1)).toEqual([echo]);
  meter.forgetEnded();
  expect(meter.active(10)).toEqual([]);
});
