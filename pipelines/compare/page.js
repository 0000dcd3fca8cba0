"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.querySelector("tbody.rows");
  const headers = [...table.querySelectorAll("thead th")];
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const falls = header.getAttribute("aria-sort") !== "descending";
      headers.forEach((other) => other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort;
      const compare = (one, other) => {
        const [a, b] = [key(one), key(other)];
        if (a === "" || b === "") return (a === "") - (b === "");
        return falls ? b - a : a - b;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
