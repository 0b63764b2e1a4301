/** What a text is made of. */
export interface TextCounts {
  readonly sentences: number;
  readonly words: number;
  readonly syllables: number;
}

const sentenceSegmenter = new Intl.Segmenter("en", { granularity: "sentence" });
const wordSegmenter = new Intl.Segmenter("en", { granularity: "word" });

export function sentencesOf(text: string): string[] {
  return [...sentenceSegmenter.segment(text)]
    .map(({ segment }) => segment.trim())
    .filter((segment) => segment !== "");
}

/** The words in lower case. */
export function wordsOf(text: string): string[] {
  return [...wordSegmenter.segment(text)]
    .filter(({ isWordLike }) => isWordLike)
    .map(({ segment }) => segment.toLowerCase());
}

export function count(text: string): TextCounts {
  const words = wordsOf(text);
  return {
    sentences: sentencesOf(text).length,
    words: words.length,
    syllables: words.reduce((sum, word) => sum + syllablesOf(word), 0),
  };
}

/** Groups of vowels, without a silent `e` at the end: right for about nine of ten English words. */
export function syllablesOf(word: string): number {
  const spoken = word.replace(/(?<=[^aeiouy]{1,})(?:es|ed|e)$/, "").replace(/^y/, "");
  return Math.max(spoken.match(/[aeiouy]+/g)?.length ?? 0, 1);
}

/**
 * Flesch reading ease and Flesch-Kincaid grade level, as in Kincaid et al., "Derivation of New Readability Formulas"
 * (1975).
 */
export function grade({ sentences, words, syllables }: TextCounts): { readingEase: number; grade: number } {
  if (words === 0) {
    return { readingEase: 100, grade: 0 };
  }
  const length = words / Math.max(sentences, 1);
  const weight = syllables / words;
  return {
    readingEase: round(206.835 - 1.015 * length - 84.6 * weight),
    grade: round(0.39 * length + 11.8 * weight - 15.59),
  };
}

/** The `limit` words that occur most often, most frequent first; equally frequent ones by the alphabet. */
export function topWords(text: string, limit: number): Map<string, number> {
  const counts = new Map<string, number>();
  for (const word of wordsOf(text)) {
    counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  const order = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  return new Map(order.slice(0, limit));
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
