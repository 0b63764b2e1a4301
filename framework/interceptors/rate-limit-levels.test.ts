import { Health } from "@toolplane/gen/grpc/health/v1/health_pb.js";
import { expect, test } from "vitest";
import { anonymous } from "./call-context.ts";
import { type CallLevelsOptions, callerKey, callLevels } from "./rate-limit-levels.ts";

test.each([
  ["127.0.0.1:52114", "address:127.0.0.1"],
  ["192.0.2.7", "address:192.0.2.7"],
  ["[::ffff:192.0.2.7]:443", "address:192.0.2.7"],
  ["[::1]:52114", "address:0:0:0:0::/64"],
  ["[2001:db8:1:2:3:4:5:6]:1", "address:2001:db8:1:2::/64"],
  ["[2001:db8:1:2::9]:65535", "address:2001:db8:1:2::/64"],
  ["[2001:db8::9]", "address:2001:db8:0:0::/64"],
  ["[2001:DB8:1:2::]:1", "address:2001:db8:1:2::/64"],
  ["[fe80::1%eth0]:1", "address:fe80:0:0:0::/64"],
  ["unknown", "address:unknown"],
  ["", "address:unknown"],
  [undefined, "address:unknown"],
])("whoever calls from %s is %s", (peer, key) => {
  expect(callerKey(anonymous, peer)).toBe(key);
});

test("whoever is known is known by name, wherever they call from", () => {
  expect(callerKey({ id: "user:ada", role: "reader" }, "127.0.0.1:1")).toBe("user:ada");
});

test("a service or caller without a limit is not under any limit of its level", () => {
  const limit = { limit: 1, periodMs: 60_000 };
  const calling = { method: Health.method.check, caller: "key:ci" };
  const keysOf = (options: CallLevelsOptions) =>
    callLevels(options).map(({ name, limiter, keyOf }) => {
      limiter.close();
      return [name, keyOf(calling)];
    });
  expect(keysOf({ service: limit, caller: limit })).toEqual([
    ["service", Health.typeName],
    ["caller", "key:ci"],
  ]);
  expect(
    keysOf({
      service: limit,
      services: { [Health.typeName]: undefined },
      caller: limit,
      callers: { "key:ci": undefined },
    }),
  ).toEqual([
    ["service", undefined],
    ["caller", undefined],
  ]);
  // Nothing to decide: no level.
  expect(keysOf({ services: { [Health.typeName]: undefined }, callers: { "key:ci": undefined } })).toEqual(
    [],
  );
});
