import { toBinary } from "@bufbuild/protobuf";
import { anyUnpack, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, decodeBinaryHeader } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "@toolplane/gen/google/rpc/status_pb.js";
import { ToolService } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { expect, test } from "vitest";
import { envelope, type RawAnswer, rawGrpc } from "../test-support/raw-client.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { invalidArgument } from "./domain-error.ts";

const echo = "/sample.v1.SampleService/Echo";
const anyText = envelope(
  toBinary(StringValueSchema, { $typeName: "google.protobuf.StringValue", value: "" }),
);

/** What clients of gRPC accept in all, names and 32 bytes for each header included. */
const LIMIT = 8 * 1024;

function metadataSize(answer: RawAnswer): number {
  return Object.entries({ ...answer.headers, ...answer.trailers }).reduce(
    (size, [name, value]) => size + name.length + String(value).length + 32,
    0,
  );
}

function detailsOf({ headers, trailers }: RawAnswer) {
  const status = decodeBinaryHeader(
    String({ ...headers, ...trailers }["grpc-status-details-bin"]),
    StatusSchema,
  );
  return {
    types: status.details.map(({ typeUrl }) => typeUrl.split(".").at(-1)),
    fields: status.details
      .flatMap((detail) => anyUnpack(detail, BadRequestSchema)?.fieldViolations ?? [])
      .map(({ field }) => field),
  };
}

test("an error that complains about more than fits keeps what comes first", async () => {
  const server = await serveSample(
    {},
    {
      echo() {
        throw invalidArgument(
          Array.from({ length: 1_000 }, (_, index) => ({
            field: `calls[${index}].tool`,
            description: "muß gesetzt sein 🙂",
          })),
        );
      },
    },
  );
  const answer = await rawGrpc(server.url, echo, anyText);
  expect(answer).toMatchObject({ code: Code.InvalidArgument, info: { reason: "INVALID_FIELDS" } });
  expect(answer.message).toMatch(/^calls\[0\]\.tool: muß .*…$/s);
  expect(metadataSize(answer)).toBeLessThanOrEqual(LIMIT);
  const { fields } = detailsOf(answer);
  expect(fields.length).toBeGreaterThan(10);
  expect(fields).toEqual(fields.map((_, index) => `calls[${index}].tool`));
});

test("the largest details are left out first", async () => {
  const text = (length: number) => ({ desc: StringValueSchema, value: { value: "x".repeat(length) } });
  const server = await serveSample(
    {},
    {
      echo() {
        const info = { desc: ErrorInfoSchema, value: { reason: "LAST", domain: "sample" } };
        throw new ConnectError("no", Code.Aborted, undefined, [text(100_000), text(1_000), info]);
      },
    },
  );
  const answer = await rawGrpc(server.url, echo, anyText);
  expect(answer).toMatchObject({ code: Code.Aborted, message: "no", info: { reason: "LAST" } });
  expect(detailsOf(answer).types).toEqual(["StringValue", "ErrorInfo"]);
});

test("text that is no Unicode does not keep an error from being sent", async () => {
  const server = await serveSample(
    {},
    {
      echo() {
        throw new ConnectError("no \ud800 thing", Code.NotFound);
      },
    },
  );
  expect(await rawGrpc(server.url, echo, anyText)).toMatchObject({
    code: Code.NotFound,
    message: "no \ufffd thing",
  });
});

test("a request with far too many mistakes is refused for the first, at once", async () => {
  const server = await serveSample({ routes: (router) => router.service(ToolService, {}) });
  const calls = (count: number) => envelope(Buffer.alloc(count * 2, Uint8Array.of(0x0a, 0x00)));
  const path = `/${ToolService.typeName}/CallTools`;

  const some = await rawGrpc(server.url, path, calls(3));
  expect(detailsOf(some).fields).toEqual(["calls[0].tool", "calls[1].tool", "calls[2].tool"]);

  const many = await rawGrpc(server.url, path, calls(1_000_000));
  expect(many).toMatchObject({ code: Code.InvalidArgument, info: { reason: "INVALID_FIELDS" } });
  expect(detailsOf(many).fields).toEqual(["calls"]);
});

test("what is wrong with a request as a whole is no violation of a field", async () => {
  const server = await serveSample(
    {},
    {
      echo() {
        throw invalidArgument([{ field: "", description: "that is too much" }]);
      },
    },
  );
  const handled = await rawGrpc(server.url, echo, anyText);
  expect(handled).toMatchObject({ code: Code.InvalidArgument, message: "that is too much" });
  expect(detailsOf(handled).types).toEqual(["ErrorInfo"]);

  const malformed = await rawGrpc(server.url, echo, envelope(Uint8Array.of(0x0f)));
  expect(malformed).toMatchObject({ code: Code.InvalidArgument, info: { reason: "MALFORMED_REQUEST" } });
  expect(detailsOf(malformed).types).toEqual(["ErrorInfo"]);
});
