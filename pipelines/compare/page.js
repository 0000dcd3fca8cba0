"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.querySelector("tbody.rows");
  const headers = [...table.querySelectorAll("thead th")];
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const falls = header.getAttribute("aria-sort") !== "descending";
      headers.forEach((other) => other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const key = (row) => parseFloat(row.cells[column].dataset.sort);
      const compare = (one, other) => {
        const [a, b] = [key(one), key(other)];
        if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);
        return ((a > b) - (a < b)) * (falls ? -1 : 1);
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
