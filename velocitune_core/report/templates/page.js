"use strict";

// Texts of points: the nearest one by pointer, the next one by arrow keys. The data is in the attribute of each panel:
// [x, y in the picture, text, colour].
const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
const spot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
spot.setAttribute("class", "spot");
spot.setAttribute("r", 5);

function place(panel, point) {
  const picture = panel.querySelector("svg"), box = picture.getBoundingClientRect(), scale = box.width / picture.viewBox.baseVal.width;
  const [x, y, text, colour] = point;
  spot.setAttribute("cx", x);
  spot.setAttribute("cy", y);
  spot.style.fill = colour;
  picture.append(spot);
  tip.textContent = text;
  tip.hidden = false;
  const across = box.left + x * scale, down = box.top + y * scale, { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(6, Math.min(across - width / 2, document.documentElement.clientWidth - width - 6))}px`;
  tip.style.top = `${down - height - 14 > 0 ? down - height - 14 : down + 14}px`;
}

function hide() {
  tip.hidden = true;
  spot.remove();
}

function follow(panel) {
  const points = JSON.parse(panel.dataset.points);
  if (!points.length) return;
  let at = -1;
  const near = (event) => {
    const picture = panel.querySelector("svg"), box = picture.getBoundingClientRect(), scale = picture.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    const away = points.map((each) => (each[0] - x) ** 2 + (each[1] - y) ** 2);
    at = away.indexOf(Math.min(...away));
    place(panel, points[at]);
  };
  panel.addEventListener("pointermove", near);
  panel.addEventListener("pointerdown", near);
  panel.addEventListener("pointerleave", hide);
  panel.addEventListener("blur", hide);
  panel.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    at = (at + step + points.length) % points.length;
    place(panel, points[at]);
  });
}

function offerCopy(block) {
  const button = document.createElement("button");
  button.className = "copy";
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(block);
    try {
      await navigator.clipboard.writeText(block.textContent);
    } catch {
      document.execCommand("copy"); // pages opened from a file have no clipboard in some browsers
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  block.after(button);
}

document.body.append(tip);
document.querySelectorAll("[data-points]").forEach(follow);
document.querySelectorAll(".take > .copied").forEach(offerCopy);
addEventListener("scroll", hide, { passive: true });

// Pages are printed as they are shown: what is closed then is named.
addEventListener("beforeprint", () => {
  const closed = [...document.querySelectorAll("details:is(.section, .figures):not([open]) > summary")];
  const names = closed.map((each) => each.firstChild.textContent.trim()).join("; ");
  document.querySelectorAll(".left-out").forEach((each) => {
    each.textContent = `Closed on the page, so not printed: ${names}.`;
  });
});
