import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createNameMap, providerName } from "./index.ts";

const accepted = /^[a-zA-Z][a-zA-Z0-9_-]{0,63}$/;
const name = fc.oneof(
  fc.string({ minLength: 1, maxLength: 80 }),
  fc.stringMatching(/^[a-c._-]{1,6}$/),
  fc.stringMatching(/^[a-z]+(\.[a-z0-9]+){3,12}\.[A-Z][a-z]+$/),
);

describe("tool names for providers", () => {
  it("stay as they are where every provider accepts them", () => {
    expect(providerName("get_forecast")).toBe("get_forecast");
  });

  it("keep the end of a name that has to be changed", () => {
    expect(providerName("weather.acme.v1.WeatherService.GetForecast")).toMatch(
      /^weather_acme_v1_WeatherService_GetForecast_[0-9a-f]{8}$/,
    );
    expect(providerName(`${"very.long.".repeat(30)}Service.Method`)).toMatch(/Service_Method_[0-9a-f]{8}$/);
    expect(providerName("天気")).toMatch(/^tool_[0-9a-f]{8}$/);
  });

  it("are accepted by all providers, differ from each other, and lead back", () => {
    fc.assert(
      fc.property(fc.uniqueArray(name, { maxLength: 30 }), (names) => {
        const map = createNameMap(names);
        const providers = names.map((each) => map.toProvider(each) ?? "");
        expect(new Set(providers).size).toBe(names.length);
        for (const [i, provider] of providers.entries()) {
          expect(provider).toMatch(accepted);
          expect(map.fromProvider(provider)).toBe(names[i]);
        }
      }),
    );
  });

  it("do not depend on which other tools there are, unless names are made to collide", () => {
    const changed = providerName("a.b");
    const map = createNameMap(["a.b", changed]);
    expect(createNameMap(["x", "a.b"]).toProvider("a.b")).toBe(changed);
    expect(map.toProvider(changed)).toBe(changed);
    expect(map.toProvider("a.b")).not.toBe(changed);
    expect(map.fromProvider(map.toProvider("a.b") ?? "")).toBe("a.b");
    expect(map.fromProvider("unknown")).toBeUndefined();
  });
});
