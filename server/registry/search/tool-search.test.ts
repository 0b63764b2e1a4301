import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { createByteLru } from "@toolplane/framework/policies";
import { Idempotency, Streaming, ToolKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { expect, test } from "vitest";
import { silentLogger } from "../../storage/silent-logger.ts";
import type { CatalogueService } from "../catalogue.ts";
import type { ToolPredicate } from "../filter.ts";
import { service as serviceSpec } from "../test-support/specs.ts";
import { decodeToolSet, encodeToolSet } from "../tool-set.ts";
import { createToolSearch, type ToolSearch } from "./tool-search.ts";

const everything: ToolPredicate = { service: () => true, everyTool: true, tool: () => true };
const summaries = createByteLru<never>({ maxBytes: 0 });

/** What a test says about a tool: its name, description and tags. */
type Words = readonly [name: string, description?: string, ...tags: string[]];

async function serviceOf(name: string, ...tools: readonly Words[]): Promise<CatalogueService> {
  const { digest, bytes } = await encodeToolSet(
    tools.map(([toolName, description = "", ...tags]) => ({
      name: toolName,
      title: "",
      description,
      tags,
      kind: ToolKind.RPC,
      streaming: Streaming.UNARY,
      idempotency: Idempotency.UNSPECIFIED,
      sourceName: toolName,
      inputSchema: {},
      outputSchema: {},
      deprecated: false,
    })),
  );
  const time = new Date(0);
  return {
    id: `${name}/default/1.0.0`,
    lineage: `${name}/default`,
    name,
    environment: "default",
    version: "1.0.0",
    spec: serviceSpec({ name }),
    instances: [],
    tools: decodeToolSet(digest, bytes, summaries),
    schemaDigest: "",
    definition: undefined,
    problems: [],
    createTime: time,
    updateTime: time,
    discoverTime: time,
    revision: 1,
  };
}

function createSearch() {
  const services = new Map<string, CatalogueService>();
  const search = createToolSearch({ byId: (id) => services.get(id) }, silentLogger);
  return {
    search,
    put(service: CatalogueService) {
      const before = services.get(service.id);
      services.set(service.id, service);
      search.follow([{ id: service.id, before, after: service }]);
    },
    remove(service: CatalogueService) {
      services.delete(service.id);
      search.follow([{ id: service.id, before: service, after: undefined }]);
    },
  };
}

async function names(search: ToolSearch, query: string, matches = everything): Promise<string[]> {
  const hits = await search.search(query, matches, 10);
  return hits.map(({ location: { service, tools, index } }) => `${service.name}.${tools.names[index]}`);
}

test("words are found in camelCase, snake_case and dotted names, descriptions and tags", async () => {
  const { search, put } = createSearch();
  put(
    await serviceOf(
      "weather",
      ["acme.v1.WeatherService.GetHTTPForecast", "Tells how warm it will be"],
      ["read_rain_gauge", "", "metering"],
    ),
  );
  const forecast = "weather.acme.v1.WeatherService.GetHTTPForecast";
  for (const query of ["forecast", "http", "warm", "acme", "gethttpforecast", "GetHTTPForecast"]) {
    expect(await names(search, query), query).toEqual([forecast]);
  }
  for (const query of ["gauge", "metering", "read rain"]) {
    expect(await names(search, query), query).toEqual(["weather.read_rain_gauge"]);
  }
});

test("the tool's own name counts more than its description, and all words more than one", async () => {
  const { search, put } = createSearch();
  put(
    await serviceOf(
      "shop",
      ["ListOrders", "All of them"],
      ["CancelInvoice", "Use it after the orders were cancelled by list"],
      ["CancelOrders", "Undoes"],
    ),
  );
  expect(await names(search, "orders")).toEqual([
    "shop.CancelOrders",
    "shop.ListOrders",
    "shop.CancelInvoice",
  ]);
  expect((await names(search, "cancel orders"))[0]).toBe("shop.CancelOrders");
});

test("a beginning, and then a misspelling, stands for words only where there is no such word", async () => {
  const { search, put } = createSearch();
  put(await serviceOf("a", ["GetForecast"], ["GetFore"], ["SendInvoice"]));
  expect(await names(search, "fore")).toEqual(["a.GetFore"]);
  expect(await names(search, "inv")).toEqual(["a.SendInvoice"]);
  expect(await names(search, "forcast")).toEqual(["a.GetForecast"]);
  expect(await names(search, "inovice")).toEqual(["a.SendInvoice"]);
  expect(await names(search, "zebra")).toEqual([]);
});

test("only tools that are meant are found", async () => {
  const { search, put } = createSearch();
  put(await serviceOf("one", ["Get", "", "x"], ["Get2", "get", "y"]));
  put(await serviceOf("two", ["Get", "", "y"]));
  const tagged: ToolPredicate = {
    service: () => true,
    everyTool: false,
    tool: (_, { tags }, index) => tags[index]?.includes("y") === true,
  };
  expect(await names(search, "get", tagged)).toEqual(["two.Get", "one.Get2"]);
  const inOne: ToolPredicate = { ...everything, service: ({ name }) => name === "one" };
  expect(await names(search, "get", inOne)).toHaveLength(2);
});

test("equal tools are ordered by name, whatever order they came in", async () => {
  const services = await Promise.all(["c", "a", "b"].map((name) => serviceOf(name, ["Same"])));
  for (const order of [services, services.toReversed()]) {
    const { search, put } = createSearch();
    order.forEach(put);
    expect(await names(search, "same")).toEqual(["a.Same", "b.Same", "c.Same"]);
  }
});

test("what is removed or replaced is found no more", async () => {
  const { search, put, remove } = createSearch();
  const first = await serviceOf("one", ["OldName"]);
  const other = await serviceOf("two", ["OldName"]);
  put(first);
  put(other);
  expect(await names(search, "old")).toHaveLength(2);
  put(await serviceOf("one", ["NewName"]));
  expect(await names(search, "old")).toEqual(["two.OldName"]);
  expect(await names(search, "new")).toEqual(["one.NewName"]);
  remove(other);
  expect(await names(search, "old")).toEqual([]);
});

test("the index is tidied when most of it was removed", async () => {
  const { search, put, remove } = createSearch();
  const kept = await serviceOf("kept", ["Alpha"], ["Beta"]);
  const many = await serviceOf(
    "many",
    ...Array.from({ length: 25_000 }, (_, index): Words => [`Tool${index}`]),
  );
  put(many);
  put(kept);
  await search.indexed();
  remove(many);
  put(await serviceOf("late", ["Alpha"]));
  expect(await names(search, "alpha")).toEqual(["kept.Alpha", "late.Alpha"]);
  expect(await names(search, "beta")).toEqual(["kept.Beta"]);
  expect(await names(search, "tool")).toEqual([]);
});

test("a service that is gone is not kept in memory", async () => {
  setFlagsFromString("--expose-gc");
  const collectGarbage: () => void = runInNewContext("gc");
  const { search, put, remove } = createSearch();
  put(await serviceOf("kept", ["GetForecast"]));
  const gone = await (async () => {
    const service = await serviceOf("gone", ["GetForecast"]);
    put(service);
    await search.indexed();
    remove(service);
    await search.indexed();
    return new WeakRef(service);
  })();
  await expect
    .poll(() => {
      collectGarbage();
      return gone.deref() === undefined;
    })
    .toBe(true);
  expect(await names(search, "forecast")).toEqual(["kept.GetForecast"]);
});
