// A click on a hit, or on what can be done with one, becomes the value of this component and an event of its own.
// `element`, `props` and `trigger` are Gradio's; the events are 'hit', 'similar', 'change_one', 'regions' and 'remove'.
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-event]");
  if (!button) return;
  if (button.dataset.event === "hit") {
    element.querySelectorAll('[data-event="hit"]').forEach((one) => one.setAttribute("aria-pressed", one === button));
  }
  props.value = Number(button.dataset.rank);
  trigger(button.dataset.event);
});
element.addEventListener("change", (event) => {
  const select = event.target.closest("select[data-group]");
  if (!select || !select.value) return;
  props.value = [`${select.dataset.group}=${select.value}`];
  select.value = "";
  trigger("change_one");
});
