import { expect, test } from "vitest";
import { createFakeClock } from "../../framework/test-support/fake-clock.ts";
import { createOutboundMeter } from "./outbound.ts";

const MINUTE = 60_000;
const ok = { code: "ok", durationMs: 5 };

const service = (name: string) => ({
  name: `${name}.Get`,
  service: name,
  environment: "default",
  version: "1.0.0",
});

test("calls are counted by service, with their codes, retries and hedges", () => {
  const meter = createOutboundMeter(createFakeClock());
  const end = meter.callStarted(service("weather"));
  meter.callStarted(service("weather"))({ code: "unavailable", durationMs: 40, attempts: 3, hedges: 1 });
  const [weather] = meter.services();
  expect(weather).toMatchObject({ service: "weather", environment: "default", version: "1.0.0" });
  expect(weather?.calls).toMatchObject({ inFlight: 1, ended: 1, retries: 2, hedges: 1 });
  end(ok);
  expect([...(weather?.calls.codes ?? [])]).toEqual([
    ["unavailable", 1],
    ["ok", 1],
  ]);
  expect(meter.total).toMatchObject({ inFlight: 0, ended: 2, retries: 2 });
});

test("calls are counted by tool too", () => {
  const meter = createOutboundMeter(createFakeClock());
  const get = service("weather");
  const set = { ...get, name: "weather.Set" };
  meter.callStarted(get)(ok);
  meter.callStarted(set)(ok);
  meter.callStarted(set)({ code: "internal", durationMs: 1 });
  expect([...meter.services()]).toMatchObject([{ service: "weather", calls: { ended: 3 } }]);
  expect([...meter.tools()]).toMatchObject([
    { ...get, calls: { ended: 1 } },
    { ...set, calls: { ended: 2 } },
  ]);
});

test("services beyond those that fit are counted together, and nothing is lost", () => {
  const meter = createOutboundMeter(createFakeClock());
  const running = Array.from({ length: 1_000 }, (_, n) => meter.callStarted(service(`service-${n}`)));
  const series = [...meter.services()];
  expect(series).toHaveLength(201);
  expect(series.at(-1)).toMatchObject({ service: "other", calls: { inFlight: 800 } });
  for (const end of running) {
    end(ok);
  }
  expect(series.reduce((sum, { calls }) => sum + calls.ended, 0)).toBe(1_000);
  expect(series.every(({ calls }) => calls.inFlight === 0)).toBe(true);
  expect(meter.total).toMatchObject({ ended: 1_000, inFlight: 0 });
});

test("a service that is not called for long makes room, one with a running call does not", () => {
  const clock = createFakeClock();
  const meter = createOutboundMeter(clock);
  const end = meter.callStarted(service("running"));
  for (let n = 0; n < 199; n++) {
    meter.callStarted(service(`old-${n}`))(ok);
  }
  clock.advance(11 * MINUTE);
  meter.callStarted(service("new"))(ok);
  const names = Array.from(meter.services(), (series) => series.service);
  expect(names).toEqual(["running", "new"]);
  end(ok);
  expect([...meter.services()][0]?.calls).toMatchObject({ inFlight: 0, ended: 1 });
});
