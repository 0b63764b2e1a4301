import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { venvPython } from "../../scripts/examples.ts";
import type { Polyglot } from "./setup.ts";
import { buildGoClient, generatePython, output, root } from "./tools.ts";

const TOOL = "text.AnalyzeText";
const SEEN = {
  services: ["diff", "stats", "text", "time", "toolplane"],
  hits: expect.arrayContaining(["text.examples.text.v1.TextService.AnalyzeText"]),
  result: expect.objectContaining({ sentences: 2, words: 6 }),
  events: ["started", "result", "finished"],
  watched: ["diff", "stats", "text", "time", "toolplane"],
};
const ERROR = { reason: "TOOL_NOT_FOUND", domain: "toolplane" };

/** Clients in other languages, their code generated from the contract. */
export function testGeneratedClients(polyglot: () => Polyglot): void {
  describe("a client in Python with generated stubs", () => {
    it("finds, calls, streams, watches and reads errors", async () => {
      const generated = await generatePython(venvPython);
      const client = join(root, "test", "polyglot", "python-client", "client.py");
      const seen = await saw(venvPython, [client, generated, polyglot().address, TOOL]);
      expect(seen).toMatchObject({ ...SEEN, health: 1, error: { ...ERROR, code: "NOT_FOUND" } });
    });
  });

  describe("a client in Go with generated stubs", () => {
    let client: string;
    beforeAll(async () => {
      client = await buildGoClient();
    });

    it.each([
      ["connect", "1.1"],
      ["connect", "2"],
      ["connect-json", "1.1"],
      ["connect-json", "2"],
      ["grpc", "2"],
      ["grpcweb", "1.1"],
      ["grpcweb", "2"],
    ])(
      "finds, calls, streams, watches and reads errors with %s over HTTP/%s",
      async (protocol, httpVersion) => {
        const seen = await saw(client, [polyglot().url, TOOL, protocol, httpVersion]);
        expect(seen).toMatchObject({ ...SEEN, error: { ...ERROR, code: "not_found" } });
      },
    );
  });
}

async function saw(
  file: string,
  args: readonly string[],
): Promise<{ services: string[]; watched: string[] }> {
  const { code, stdout, stderr } = await output(file, args);
  expect([code, stderr]).toEqual([0, expect.any(String)]);
  const seen = JSON.parse(stdout);
  return { ...seen, services: seen.services.toSorted(), watched: seen.watched.toSorted() };
}
