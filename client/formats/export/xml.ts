/** A value of an attribute, quoted. Characters that XML cannot have become U+FFFD. */
export function attribute(name: string, value: string): string {
  return ` ${name}="${escaped(value).replace(/[\n\r\t]/g, (space) => `&#${space.charCodeAt(0)};`)}"`;
}

/** Text between tags. Characters that XML cannot have become U+FFFD. */
export function content(text: string): string {
  // A carriage return would be read as a line feed.
  return escaped(text).replaceAll("\r", "&#13;");
}

function escaped(text: string): string {
  return text
    .toWellFormed()
    .replace(FORBIDDEN, "\uFFFD")
    .replace(/[&<>"]/g, (character) => ENTITIES[character] ?? character);
}

const ENTITIES: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
const FORBIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g;
