/** How the bytes of a report become text. */
export interface ReportDecoder {
  /** The text of the next bytes, as far as they hold whole characters. */
  decode(bytes: Uint8Array): string;
  /** What remains. */
  end(): string;
}

/** So many first bytes are enough to find out the encoding. */
export const ENCODING_BYTES = 512;

/**
 * Finds out the encoding by the byte order mark, the pattern of zeros that UTF-16 has in `<?xml`, or the XML
 * declaration, in this order; else it is UTF-8. What does not fit the encoding becomes U+FFFD, and the first place of it
 * is told.
 *
 * @param first at least `ENCODING_BYTES` of the beginning, or all there is; they are not decoded yet
 * @param warn is told what is wrong, and where
 */
export function createReportDecoder(
  first: Uint8Array,
  warn: (message: string, place: string) => void,
): ReportDecoder {
  const label = encodingOf(first, warn);
  const decoder = new TextDecoder(label);
  const width = decoder.encoding.startsWith("utf-16") ? 2 : 1;
  // A single-byte encoding has a character for every byte.
  let watching = decoder.encoding.startsWith("utf-");
  // The byte at which the next decoded character begins; TextDecoder takes a byte order mark off.
  let position = hasMark(first, decoder.encoding) ? (width === 2 ? 2 : 3) : 0;
  let fed = 0;
  let before: Uint8Array = new Uint8Array();

  function watch(text: string, bytes: Uint8Array): void {
    if (!watching) {
      return;
    }
    const recent = Buffer.concat([before, bytes]);
    const start = fed - before.length;
    let from = 0;
    for (let at = text.indexOf("\uFFFD"); at !== -1; at = text.indexOf("\uFFFD", from)) {
      position += lengthOf(text.slice(from, at), width);
      if (!isReplacementCharacter(recent, position - start, decoder.encoding)) {
        warn(
          `the report is not the ${decoder.encoding.toUpperCase()} that it says to be; characters that are not are ` +
            "written as U+FFFD; write it in UTF-8, or name its encoding in the XML declaration",
          `byte ${position}`,
        );
        watching = false;
        return;
      }
      position += width === 2 ? 2 : 3;
      from = at + 1;
    }
    position += lengthOf(text.slice(from), width);
    fed += bytes.length;
    before = recent.subarray(-4);
  }

  return {
    decode(bytes) {
      const text = decoder.decode(bytes, { stream: true });
      watch(text, bytes);
      return text;
    },
    end() {
      const text = decoder.decode();
      watch(text, new Uint8Array());
      return text;
    },
  };
}

function lengthOf(text: string, width: number): number {
  return width === 2 ? text.length * 2 : Buffer.byteLength(text);
}

function hasMark(first: Uint8Array, encoding: string): boolean {
  const mark = { "utf-8": [0xef, 0xbb, 0xbf], "utf-16le": [0xff, 0xfe], "utf-16be": [0xfe, 0xff] }[encoding];
  return mark !== undefined && startsWith(first, mark);
}

/** Whether the text itself has U+FFFD here. */
function isReplacementCharacter(bytes: Uint8Array, at: number, encoding: string): boolean {
  const written = {
    "utf-8": [0xef, 0xbf, 0xbd],
    "utf-16le": [0xfd, 0xff],
    "utf-16be": [0xff, 0xfd],
  }[encoding];
  return written !== undefined && startsWith(bytes.subarray(at), written);
}

function encodingOf(first: Uint8Array, warn: (message: string, place: string) => void): string {
  if (startsWith(first, [0xff, 0xfe]) || startsWith(first, [0x3c, 0, 0x3f, 0])) {
    return "utf-16le";
  }
  if (startsWith(first, [0xfe, 0xff]) || startsWith(first, [0, 0x3c, 0, 0x3f])) {
    return "utf-16be";
  }
  if (startsWith(first, [0xef, 0xbb, 0xbf])) {
    return "utf-8";
  }
  const head = Buffer.from(first.subarray(0, ENCODING_BYTES)).toString("latin1");
  const declared = /^\s*<\?xml\s[^>]*?encoding\s*=\s*["']([^"'>]*)["']/.exec(head)?.[1];
  if (declared === undefined) {
    return "utf-8";
  }
  try {
    const { encoding } = new TextDecoder(declared);
    if (!encoding.startsWith("utf-16")) {
      return encoding;
    }
    // The declaration was readable as ASCII, so it is not UTF-16.
    warn(`the report declares ${declared} and is not; it is read as UTF-8`, "line 1");
  } catch {
    warn(`the report declares an encoding that is not known, "${declared}"; it is read as UTF-8`, "line 1");
  }
  return "utf-8";
}

export function startsWith(bytes: Uint8Array, prefix: readonly number[]): boolean {
  return bytes.length >= prefix.length && prefix.every((byte, index) => bytes[index] === byte);
}
