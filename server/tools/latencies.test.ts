import { expect, test } from "vitest";
import { createLatencies } from "./latencies.ts";

test("less than a second proves nothing, and more only something where usual latencies are known", () => {
  const latencies = createLatencies();
  expect(latencies.patience("t", 999)).toBe("short");
  expect(latencies.patience("t", 1_000)).toBe("unproven");
  latencies.record("t", 5);
  expect(latencies.patience("t", 999)).toBe("short");
  expect(latencies.patience("t", 1_000)).toBe("ample");
  expect(latencies.patience("other", 1_000)).toBe("unproven");
});

test("a slow tool is given three times what it usually takes", () => {
  const latencies = createLatencies();
  latencies.record("t", 2_000);
  expect(latencies.patience("t", 5_999)).toBe("short");
  expect(latencies.patience("t", 6_000)).toBe("ample");
  for (let call = 0; call < 100; call++) {
    latencies.record("t", 1_000);
  }
  expect(latencies.patience("t", 3_100)).toBe("ample");
});
