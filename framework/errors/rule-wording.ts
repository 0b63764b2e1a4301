/** What a broken protovalidate rule says, in grammatical words: its texts have plurals for every number. */
export function wordRule(text: string): string {
  return /^(?:map )?must (?:be|contain) at least 1 (?:characters|bytes|entries|item\(s\))$/.test(text)
    ? "must not be empty"
    : text
        .replace(/^map must be (at least|at most) (\d+) entries$/, "must have $1 $2 entries")
        .replace(/^repeated value must contain unique items$/, "must not contain an item twice")
        .replace(/^must contain no more than (\d+ item)/, "must contain at most $1")
        .replace(/\b(\d+) item\(s\)$/, "$1 items")
        .replace(/^(must (?:be|have|contain)(?: at least| at most)? 1) (character|byte|item)s$/, "$1 $2")
        .replace(/^(must (?:be|have|contain)(?: at least| at most)? 1) entries$/, "$1 entry");
}
