import { describe, expect, it } from "vitest";
import { readReport } from "../../testing/read-report.ts";

const xml = (encoding: string) =>
  `<?xml version="1.0" encoding="${encoding}"?><testsuite><testcase name="größe €"/></testsuite>`;

async function nameIn(bytes: Uint8Array) {
  // One byte at a time, so that characters are cut.
  const { results, problems } = await readReport(Array.from(bytes, (byte) => Uint8Array.of(byte)));
  return { name: results[0]?.test?.name, problems };
}

describe("the encoding of a report", () => {
  it("is told by a byte order mark", async () => {
    const utf16 = Buffer.from(`\uFEFF${xml("UTF-16")}`, "utf16le");
    expect(await nameIn(utf16)).toEqual({ name: "größe €", problems: [] });
    expect(await nameIn(utf16.swap16())).toEqual({ name: "größe €", problems: [] });
    expect(await nameIn(Buffer.from(`\uFEFF${xml("UTF-8")}`))).toEqual({ name: "größe €", problems: [] });
  });

  it("is told by the zeros of UTF-16 without a mark", async () => {
    expect(await nameIn(Buffer.from(xml("UTF-16"), "utf16le"))).toEqual({ name: "größe €", problems: [] });
  });

  it("is told by the XML declaration", async () => {
    const bytes = Buffer.from(xml("windows-1252").replace("€", "\x80"), "latin1");
    expect(await nameIn(bytes)).toEqual({ name: "größe €", problems: [] });
    expect((await nameIn(Buffer.from(xml("ISO-8859-1").replace("€", ""), "latin1"))).name).toBe("größe ");
  });

  it("that is not as declared is warned of with the first byte of it, and read past", async () => {
    const bytes = Buffer.from(xml("UTF-8").replace("€", "\uFFFD"));
    const at = bytes.indexOf("\uFFFD") + 3;
    const wrong = Buffer.concat([bytes.subarray(0, at), Buffer.from([0xff, 0xfe]), bytes.subarray(at)]);
    expect((await nameIn(bytes)).problems).toEqual([]);
    const { problems } = await nameIn(wrong);
    expect(problems).toMatchObject([
      { message: expect.stringContaining("not the UTF-8"), place: `byte ${at}` },
    ]);
  });

  it("that nobody knows, or that it cannot be, is read as UTF-8 with a warning", async () => {
    expect(await nameIn(Buffer.from(xml("klingon")))).toMatchObject({
      name: "größe €",
      problems: [{ message: expect.stringContaining('"klingon"') }],
    });
    expect(await nameIn(Buffer.from(xml("UTF-16")))).toMatchObject({
      name: "größe €",
      problems: [{ message: expect.stringContaining("declares UTF-16") }],
    });
  });
});
