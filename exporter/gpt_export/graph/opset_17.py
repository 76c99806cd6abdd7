def lower_opset(model, opset): raise NotImplementedError
