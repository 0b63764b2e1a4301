import {
  Confidence,
  PerformanceTrend,
  QualityTrend,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import type { Colors } from "picocolors/types.js";
import type { Cell } from "../output/columns.ts";

// Every statement is a word first; the colour only helps the eye.

export function qualityTrend(trend: QualityTrend, paint: Colors): Exclude<Cell, string> {
  switch (trend) {
    case QualityTrend.IMPROVING:
      return { text: "▲ improving", style: paint.green };
    case QualityTrend.STABLE:
      return { text: "= stable", style: String };
    case QualityTrend.DECLINING:
      return { text: "▼ declining", style: paint.red };
    case QualityTrend.UNSPECIFIED:
      return { text: "? cannot be said", style: paint.dim };
  }
}

export function performanceTrend(trend: PerformanceTrend, paint: Colors): Exclude<Cell, string> {
  switch (trend) {
    case PerformanceTrend.FASTER:
      return { text: "▲ faster", style: paint.green };
    case PerformanceTrend.STABLE:
      return { text: "= stable", style: String };
    case PerformanceTrend.SLOWER:
      return { text: "▼ slower", style: paint.red };
    case PerformanceTrend.UNSPECIFIED:
      return { text: "? cannot be said", style: paint.dim };
  }
}

export function confidence(level: Confidence): string {
  switch (level) {
    case Confidence.INSUFFICIENT_DATA:
      return "insufficient data";
    case Confidence.LOW:
      return "low confidence";
    case Confidence.MEDIUM:
      return "medium confidence";
    case Confidence.HIGH:
      return "high confidence";
    case Confidence.UNSPECIFIED:
      return "";
  }
}
