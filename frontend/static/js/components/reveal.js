/** <llamora-reveal>: a passphrase field with a word beside it that shows and hides what is typed. */
class Reveal extends HTMLElement {
  #button;

  connectedCallback() {
    const field = this.querySelector("input");
    if (this.#button || !field) return;
    this.#button = document.createElement("button");
    this.#button.type = "button";
    this.#button.className = "word";
    this.#button.setAttribute("aria-controls", field.id);
    this.#button.addEventListener("click", () => {
      this.#show(field, field.type === "password");
      field.focus();
    });
    // A passphrase left showing would be offered to the browser's memory as ordinary text.
    field.form?.addEventListener("submit", () => this.#show(field, false));
    this.append(this.#button);
    this.#show(field, false);
  }

  #show(field, visible) {
    field.type = visible ? "text" : "password";
    const { show, showName, hide, hideName } = document.body.dataset;
    this.#button.textContent = visible ? hide : show;
    this.#button.ariaLabel = visible ? hideName : showName;
  }
}

customElements.define("llamora-reveal", Reveal);
