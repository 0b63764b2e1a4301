/** Whether a name matches a pattern in which `*` stands for any characters. Takes at most pattern times name steps. */
export function globMatches(pattern: string, name: string): boolean {
  let [at, place] = [0, 0];
  // Where the last `*` was, and what it is taken to end before.
  let [star, resume] = [-1, 0];
  while (place < name.length) {
    if (pattern[at] === "*") {
      star = at++;
      resume = place;
    } else if (at < pattern.length && pattern[at] === name[place]) {
      at++;
      place++;
    } else if (star >= 0) {
      at = star + 1;
      place = ++resume;
    } else {
      return false;
    }
  }
  while (pattern[at] === "*") {
    at++;
  }
  return at === pattern.length;
}
