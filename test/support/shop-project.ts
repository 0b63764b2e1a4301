import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** A project of four tests that a server can be configured to run: two pass, one is skipped, and one depends. */
export interface ShopProject {
  /**
   * For `testing.projects`. In the environment `default` the other test passes, in `wrong-prices` one of the two fails,
   * and in `gated` the other one runs until the gate is opened.
   */
  readonly config: object;
  openGate(): Promise<void>;
  closeGate(): Promise<void>;
}

/** @param folder where the gate is */
export function shopProject(folder: string): ShopProject {
  const gate = join(folder, "gate");
  return {
    config: {
      name: "shop",
      description: "A shop",
      runner: "node-test",
      directory: join(import.meta.dirname, "..", "test-projects", "shop"),
      environments: [
        { name: "default" },
        { name: "wrong-prices", variables: { PRICES: "wrong" } },
        { name: "gated", variables: { GATE: gate } },
      ],
      max_concurrent_runs: 4,
    },
    openGate: () => writeFile(gate, ""),
    closeGate: () => rm(gate, { force: true }),
  };
}
