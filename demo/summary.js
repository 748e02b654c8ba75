// Keeps the address of the page a link to what is described, and copies it. `element` and `watch` are Gradio's.
function follow() {
  const link = element.querySelector(".link a");
  const query = new URLSearchParams(location.search);
  query.delete("q");
  for (const word of new URLSearchParams(link ? link.getAttribute("href").slice(1) : "").getAll("q")) query.append("q", word);
  const text = query.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}
watch("value", follow);
element.addEventListener("click", async (event) => {
  const button = event.target.closest(".copy");
  if (!button) return;
  // Only a page on HTTPS or on this machine may write the clipboard; the address bar has the link, too.
  const done = navigator.clipboard && await navigator.clipboard.writeText(location.href).then(() => true, () => false);
  button.textContent = done ? "Copied" : "Copy it from the address bar";
});
