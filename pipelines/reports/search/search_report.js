"use strict";
// The table sorts, and the trial nearest to the pointer is marked in all charts and told of. Without this script the
// page says the same.
(() => {
  const REACH = 26; // pixels from the pointer to a trial that is meant
  const table = document.getElementById("trials");
  const heads = [...table.tHead.rows[0].cells];
  const rows = new Map([...table.tBodies[0].rows].map((row) => [row.dataset.row, row]));

  const key = (row, column) => {
    const cell = row.cells[column];
    const number = cell.dataset.number ?? (column === 0 ? cell.textContent : null);
    return number === null ? cell.textContent : Number(number);
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // what is empty comes last, either way
    return typeof a === typeof b && typeof a === "number" ? a - b : String(a).localeCompare(String(b));
  };
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const sorted = [...rows.values()].map((row) => [key(row, column), row]).sort(([a], [b]) =>
      down && a !== "" && b !== "" ? compare(b, a) : compare(a, b));
    table.tBodies[0].append(...sorted.map(([, row]) => row));
  }));

  const tip = document.body.appendChild(document.createElement("div"));
  tip.id = "tip";
  tip.hidden = true;
  let picked = null;
  const pick = (trial) => {
    if (trial === picked) return;
    document.querySelectorAll(".picked").forEach((one) => one.classList.remove("picked"));
    picked = trial;
    tip.hidden = trial === null;
    if (trial === null) return;
    document.querySelectorAll(`[data-trial="${trial}"]`).forEach((one) => one.classList.add("picked"));
    rows.get(trial).classList.add("picked");
    const list = document.createElement("dl");
    heads.forEach((head, column) => {
      const words = rows.get(trial).cells[column].textContent;
      if (!("brief" in head.dataset) || words === "") return;
      list.appendChild(document.createElement("dt")).textContent = head.firstChild.textContent;
      list.appendChild(document.createElement("dd")).textContent = words;
    });
    tip.replaceChildren(list);
  };
  const follow = (event) => {
    const { offsetWidth: width, offsetHeight: height } = tip;
    const left = Math.min(event.clientX + 14, innerWidth - width - 8);
    const below = event.clientY + 14;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below + height > innerHeight ? Math.max(8, event.clientY - height - 14) : below}px`;
  };

  // Where the trials of a chart are, in its own pixels: marks at one place, lines at their corners, bars as boxes.
  const places = (svg) => [...svg.querySelectorAll("[data-trial]")].flatMap((one) => {
    const trial = one.dataset.trial;
    if (one.points) return [...one.points].map(({ x, y }) => [x, y, x, y, trial]);
    if (one.tagName === "rect") {
      const { x, y, width, height } = one.getBBox();
      return [[x, y, x + width, y + height, trial]];
    }
    const { e, f } = one.transform.baseVal[0].matrix;
    return [[e, f, e, f, trial]];
  });
  const away = (value, low, high) => Math.max(low - value, 0, value - high);
  document.querySelectorAll("figure .frame > svg").forEach((svg) => {
    let known = null;
    const look = (event) => {
      known ??= places(svg);
      const matrix = svg.getScreenCTM();
      const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
      let [nearest, least] = [null, REACH / matrix.a];
      for (const [left, top, right, bottom, trial] of known) {
        const distance = Math.hypot(away(x, left, right), away(y, top, bottom));
        if (distance <= least) [nearest, least] = [trial, distance];
      }
      pick(nearest);
      if (nearest !== null) follow(event);
    };
    svg.addEventListener("pointermove", look);
    svg.addEventListener("pointerdown", look);
    svg.addEventListener("pointerleave", () => pick(null));
  });
})();
