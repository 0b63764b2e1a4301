/** Headers as Node has them, without HTTP/2's pseudo-headers, in the form of the Fetch API. */
export function toHeaders(record: Readonly<Record<string, string | string[] | number | undefined>>): Headers {
  const headers = new Headers();
  for (const [name, value] of Object.entries(record)) {
    if (value === undefined || name.startsWith(":")) {
      continue;
    }
    for (const item of Array.isArray(value) ? value : [value]) {
      headers.append(name, String(item));
    }
  }
  return headers;
}
