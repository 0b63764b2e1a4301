/** Longer patterns are not worth their place in a schema. */
const MAX_LENGTH = 1000;

/**
 * Translates an RE2 pattern to the ECMAScript pattern (flag `u`) that matches exactly the same strings. Undefined where
 * the two languages have no common form, such as for inline flags. Syntax of RE2:
 * https://github.com/google/re2/wiki/Syntax
 */
export function toEcmaScript(re2: string): string | undefined {
  if (re2.length > MAX_LENGTH) {
    return undefined;
  }
  let pattern = "";
  let inClass = false;
  for (let i = 0; i < re2.length; i++) {
    const char = re2.charAt(i);
    if (char === "\\") {
      const escaped = re2.charAt(++i);
      // White space is ASCII only in RE2; word boundaries and digits are so in both.
      if (escaped === "s") {
        pattern += inClass ? "\\t\\n\\f\\r " : "[\\t\\n\\f\\r ]";
      } else if (escaped === "S") {
        if (inClass) {
          return undefined;
        }
        pattern += "[^\\t\\n\\f\\r ]";
      } else if (/[\p{L}\p{N}]/u.test(escaped) && !/[dDwWbBtnfrvpPx]/.test(escaped)) {
        return undefined;
      } else if (/[-_"'`~!@#%&=:;<>, ]/.test(escaped)) {
        // RE2 lets any punctuation be escaped, the flag `u` only what has a meaning.
        pattern += inClass && escaped === "-" ? "\\-" : escaped;
      } else {
        pattern += `\\${escaped}`;
      }
    } else if (inClass) {
      if (char === "[" && re2.charAt(i + 1) === ":") {
        return undefined;
      }
      inClass = char !== "]";
      pattern += char === "[" ? "\\[" : char;
    } else if (char === "[") {
      inClass = true;
      pattern += char;
      if (re2.charAt(i + 1) === "^") {
        pattern += "^";
        i++;
      }
      // A bracket that comes first is a member of the class.
      if (re2.charAt(i + 1) === "]") {
        pattern += "\\]";
        i++;
      }
    } else if (char === ".") {
      pattern += "[^\\n]";
    } else if (char === "(" && re2.charAt(i + 1) === "?" && re2.charAt(i + 2) !== ":") {
      return undefined;
    } else {
      pattern += char;
    }
  }
  try {
    new RegExp(pattern, "u");
    return pattern;
  } catch {
    // Whatever ECMAScript refuses has no common form.
    return undefined;
  }
}

/** A pattern that matches the text itself. */
export function literal(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
