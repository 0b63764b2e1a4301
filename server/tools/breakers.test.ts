import { expect, test } from "vitest";
import { breakerNames, parseBreakerName, rememberBreakerNames } from "./breakers.ts";

const tool = { name: "acme.Read", service: "acme", environment: "default", version: "1.0.0" };
const place = { service: "acme", environment: "default", version: "1.0.0" };

test("a breaker's name says what it watches over", () => {
  const names = breakerNames(tool);
  expect(parseBreakerName(names.service)).toEqual({ scope: "service", ...place });
  expect(parseBreakerName(names.method)).toEqual({ scope: "method", ...place, tool: "acme.Read" });
  expect(parseBreakerName(names.instance("host/1"))).toEqual({
    scope: "instance",
    ...place,
    instanceId: "host/1",
  });
  expect(names.both).toEqual([names.service, names.method]);
});

test("what no breaker can be called is not taken for one", () => {
  for (const name of [
    "",
    "service",
    "service/a/b",
    "service/a/b/c/d",
    "instance/a/b/c",
    "method/a/b/c/",
    "x/a/b/c/d",
  ]) {
    expect(parseBreakerName(name)).toBeUndefined();
  }
});

test("names are made once, and are those of the environment and version that is called", () => {
  const namesOf = rememberBreakerNames();
  const names = namesOf(tool);
  expect(namesOf({ ...tool })).toBe(names);
  expect(namesOf({ ...tool, version: "2.0.0" }).service).toBe("service/acme/default/2.0.0");
  expect(namesOf({ ...tool, environment: "staging" }).service).toBe("service/acme/staging/1.0.0");
  expect(namesOf(tool).service).toBe("service/acme/default/1.0.0");
  for (let index = 0; index < 3_000; index++) {
    expect(names.instance(`i${index}`)).toBe(`instance/acme/default/1.0.0/i${index}`);
  }
});
