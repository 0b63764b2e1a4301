/** Longer words are cut off: nobody types them, and they cost memory. */
const MAX_TERM_LENGTH = 48;

/**
 * Calls back with the terms of a text, in lower case: words are divided at anything that is neither letter nor digit,
 * and names also at the humps of camelCase (`getHTTPStatus` has get, http, status). A name of several words counts as
 * one more term as a whole (`gethttpstatus`), which is told apart by `whole`.
 */
export function tokenise(text: string, onTerm: (term: string, whole: boolean) => void): void {
  const length = text.length;
  let start = 0;
  while (start < length) {
    if (!isWordAt(text, start)) {
      start++;
      continue;
    }
    let end = start + 1;
    let from = start;
    while (end < length && isWordAt(text, end)) {
      if (isHump(text, end, length)) {
        onTerm(toTerm(text, from, end), false);
        from = end;
      }
      end++;
    }
    onTerm(toTerm(text, from, end), false);
    if (from > start) {
      onTerm(toTerm(text, start, end), true);
    }
    start = end;
  }
}

function toTerm(text: string, from: number, to: number): string {
  const term = text.slice(from, Math.min(to, from + MAX_TERM_LENGTH)).toLowerCase();
  return isAscii(term) ? term : term.normalize("NFKC");
}

/** Whether a new word begins at `at` inside of a name. */
function isHump(text: string, at: number, length: number): boolean {
  if (!isUpperAt(text, at)) {
    return false;
  }
  if (!isUpperAt(text, at - 1)) {
    return true;
  }
  // The last capital of an acronym belongs to the word that follows: HTTPStatus is HTTP Status.
  return at + 1 < length && isWordAt(text, at + 1) && !isUpperAt(text, at + 1) && !isDigitAt(text, at + 1);
}

function isUpperAt(text: string, at: number): boolean {
  const code = text.charCodeAt(at);
  return code >= 65 && code <= 90;
}

function isDigitAt(text: string, at: number): boolean {
  const code = text.charCodeAt(at);
  return code >= 48 && code <= 57;
}

const WORD = /[\p{L}\p{M}\p{N}]/u;

function isWordAt(text: string, at: number): boolean {
  const code = text.charCodeAt(at);
  if (code < 128) {
    return (code >= 97 && code <= 122) || (code >= 48 && code <= 57) || (code >= 65 && code <= 90);
  }
  // A surrogate is half of a character; taking both halves for letters keeps them together.
  return (code >= 0xd800 && code <= 0xdfff) || WORD.test(text.charAt(at));
}

function isAscii(text: string): boolean {
  for (let index = 0; index < text.length; index++) {
    if (text.charCodeAt(index) > 127) {
      return false;
    }
  }
  return true;
}
