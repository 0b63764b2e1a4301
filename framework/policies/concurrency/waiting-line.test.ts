import fc from "fast-check";
import { expect, test } from "vitest";
import { createWaitingLine, type Place } from "./waiting-line.ts";

test("whoever joins and leaves, the line has the order of those who are left", () => {
  const action = fc.record({ join: fc.boolean(), which: fc.nat(30) });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200 }), (actions) => {
      const line = createWaitingLine<number>();
      const places: Place<number>[] = [];
      let model: number[] = [];
      for (const { join, which } of actions) {
        const place = places[which];
        if (join) {
          places.push(line.join(places.length));
          model.push(places.length - 1);
        } else if (place !== undefined) {
          line.leave(place);
          model = model.filter((item) => item !== place.item);
        }
        const order: number[] = [];
        for (let at = line.first; at !== undefined; at = at.next) {
          order.push(at.item);
        }
        expect(order).toEqual(model);
        expect(line.size).toBe(model.length);
      }
    }),
  );
});
