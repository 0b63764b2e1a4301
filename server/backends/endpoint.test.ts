import { DomainError } from "@toolplane/framework";
import { Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { describe, expect, it } from "vitest";
import { normalizeEndpoint } from "./endpoint.ts";

describe("an endpoint", () => {
  it.each([
    ["127.0.0.1:50051", "http://127.0.0.1:50051"],
    ["localhost:80", "http://localhost"],
    ["[::1]:50051", "http://[::1]:50051"],
    [" Api.Example.COM:8443 ", "http://api.example.com:8443"],
    ["http://host:8080/", "http://host:8080"],
    ["http://host", "http://host"],
    ["https://host:443", "https://host"],
    ["HTTPS://host:8443//", "https://host:8443"],
    ["grpc://host:50051", "http://host:50051"],
    ["grpcs://host", "https://host"],
  ])("%j is normalised to %s", (given, normal) => {
    expect(normalizeEndpoint(given)).toBe(normal);
    expect(normalizeEndpoint(normal)).toBe(normal);
  });

  it("keeps its path where tools are HTTP endpoints", () => {
    expect(normalizeEndpoint("https://host/api/v1/", Protocol.HTTP)).toBe("https://host/api/v1");
    expect(normalizeEndpoint("host:8080/api", Protocol.HTTP)).toBe("http://host:8080/api");
  });

  it.each([
    ["", "ENDPOINT_MALFORMED"],
    ["http://", "ENDPOINT_MALFORMED"],
    ["not an address", "ENDPOINT_MALFORMED"],
    ["host:99999", "ENDPOINT_MALFORMED"],
    ["host", "ENDPOINT_PORT"],
    ["host:0", "ENDPOINT_PORT"],
    ["ftp://host", "ENDPOINT_SCHEME"],
    ["unix:///tmp/socket", "ENDPOINT_SCHEME"],
    ["http://user:secret@host:80", "ENDPOINT_CREDENTIALS"],
    ["http://host:80/?a=b", "ENDPOINT_QUERY"],
    ["http://host:80/#a", "ENDPOINT_QUERY"],
    ["http://host:8080/api", "ENDPOINT_PATH"],
  ])("%j is refused with %s", (given, reason) => {
    const refuse = () => normalizeEndpoint(given, Protocol.GRPC, "calls[3].endpoint");
    expect(refuse).toThrow(DomainError);
    expect(refuse).toThrow(
      expect.objectContaining({
        init: expect.objectContaining({
          fields: [expect.objectContaining({ field: "calls[3].endpoint", reason })],
        }),
      }),
    );
  });
});
