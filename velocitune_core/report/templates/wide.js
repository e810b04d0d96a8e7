// Tables that are wider than their place are marked: a sentence below them, and faded where columns are hidden.
{
  const mark = (box) => {
    const hidden = box.scrollWidth - box.clientWidth;
    box.classList.toggle("scrolls", hidden > 1);
    box.classList.toggle("more", hidden - box.scrollLeft > 1);
    if (hidden > 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  };
  const sizes = new ResizeObserver((entries) => new Set(entries.map(({ target }) => target.closest(".wide"))).forEach(mark));
  document.querySelectorAll(".wide").forEach((box) => {
    box.addEventListener("scroll", () => mark(box), { passive: true });
    sizes.observe(box);
    for (const each of box.children) sizes.observe(each);
  });
}
